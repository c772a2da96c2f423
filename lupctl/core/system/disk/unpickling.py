"""A machine that runs pickles of data, and of nothing else, within bounds.

A pickle is a program for a machine with a stack and a memory. In a hundred bytes it can make a tuple that holds another
one twice, which holds a third one twice, and so on: printing, hashing or comparing it takes for ever. This machine has
only the operations that data needs, and bounds how many there are, how deep things nest, and how much is shared.
"""

import codecs
import io
import pickletools
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final

# Twice what the keys and persons of LUPerson-NL's 10.7 million crops take; most make an object of about 50 bytes.
MOST_OPERATIONS: Final = 1 << 26
# Lists, dicts and the like take up to 216 bytes when they are empty.
MOST_CONTAINERS: Final = 1 << 24
MOST_DEPTH: Final = 64
# Every reference to a list or the like that was made before counts all that is in it.
FREE_SHARED, SHARED_PER_BYTE = 1 << 18, 4
# What calls make is in the file, too, and is copied once.
FREE_MADE, MADE_PER_BYTE = 1 << 20, 4
MOST_NUMBER: Final = 1 << 64
CONTAINERS: Final = frozenset({tuple, list, dict, set, frozenset})
STOP, MEMOIZE, SHORT_TEXT, BYTE = b".", b"\x94", b"\x8c", b"K"
MISSING: Final = object()


class Call:
    """A function that a pickle may call; it has nothing that a pickle could change.

    Args:
        make: takes whatever the pickle gives, and raises for what it does not expect.
    """

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class Machine:
    """Runs one pickle.

    Args:
        encoded: the pickle.
        find: the call that stands for a name of a module; raises for one that is not known.
        stateful: types of what the calls make that take a state, with `__setstate__`.
    """

    def __init__(self, encoded: bytes, *, find: Callable[[str, str], Call], stateful: tuple[type[Any], ...]) -> None:
        self._encoded, self._find, self._stateful = encoded, find, stateful
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stack below each mark
        self._memo: list[Any] = []
        self._depths: dict[int, int] = {}  # of containers in which others are, by `id`
        self._shared: set[int] = set()  # the `id` of each container that was referred to again
        self._containers = MOST_CONTAINERS
        self._sharing = FREE_SHARED + SHARED_PER_BYTE * len(encoded)
        self._making = FREE_MADE + MADE_PER_BYTE * len(encoded)

    def run(self) -> Any:
        """What the pickle makes.

        Raises:
            Exception: of any kind: it is damaged, needs more than data does, or exceeds a bound.
        """
        stream = io.BytesIO(self._encoded)
        read = stream.read
        for _ in range(MOST_OPERATIONS):
            code = read(1)
            # These are most of a list of millions of keys, or of boxes; without a call they take half the time.
            if code == SHORT_TEXT:
                self._stack.append(str(read(read(1)[0]), "utf-8", "surrogatepass"))
                continue
            if code == MEMOIZE:
                self._memo.append(self._stack[-1])
                continue
            if code == BYTE:
                self._stack.append(read(1)[0])
                continue
            if code == STOP:
                break
            if code not in OPERATIONS:
                what = f"the operation {NAMES.get(code, code.hex())}, which data never needs"
                raise ValueError(what if code else "it ends too early")
            read_argument, effect = OPERATIONS[code]
            effect(self, None if read_argument is None else read_argument(stream))
        else:
            raise ValueError(f"more than {MOST_OPERATIONS:,} operations")
        if self._below or len(self._stack) != 1:
            raise ValueError("it ends inside of a list")
        return self._stack[0]

    def push(self, value: Any) -> None:
        """A text, bytes, or the like."""
        self._stack.append(value)

    def push_number(self, value: int) -> None:
        """A whole number."""
        if not -MOST_NUMBER < value < MOST_NUMBER:
            raise ValueError("a whole number of more than 64 bits")
        self._stack.append(value)

    def mark(self, _: None) -> None:
        """Where the items of a list begin."""
        self._below.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[Any]:
        """What is above the last mark."""
        above, self._stack = self._stack, self._below.pop()
        return above

    def make_empty(self, kind: type) -> None:
        """A new container with nothing in it yet."""
        self._containers -= 1
        if self._containers < 0:
            raise ValueError(f"more than {MOST_CONTAINERS:,} lists, tuples and the like")
        self._stack.append(kind())

    def make(self, kind: type, items: Iterable[Any]) -> None:
        """A new container of items."""
        self.make_empty(kind)
        self._stack[-1] = made = kind(items)
        self._nest(made, made.values() if kind is dict else made)

    def pop(self, count: int) -> list[Any]:
        """The last values."""
        last = self._stack[-count:]
        if len(last) != count:
            raise ValueError("takes values that are not there")
        del self._stack[-count:]
        return last

    def add(self, kind: type, items: list[Any]) -> None:
        """Puts items in the container that is last on the stack."""
        holder = self._stack[-1]
        if type(holder) is not kind or id(holder) in self._shared:
            raise ValueError(f"a {kind.__name__} that changes after it is complete")
        self._nest(holder, items)
        match holder:
            case list():
                holder.extend(items)
            case dict():
                holder.update(pairs(items))
            case set():
                holder.update(items)

    def memoize(self, index: int | None) -> None:
        """Keeps the last value, to be referred to."""
        if index is None or index == len(self._memo):
            self._memo.append(self._stack[-1])
            return
        # Every number below it was once given by an operation of a byte or more, although some may be left out.
        if index > len(self._encoded):
            raise ValueError(f"a memory of {index:,} values")
        self._memo.extend([MISSING] * (index + 1 - len(self._memo)))
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        """A value that was kept."""
        value = self._memo[index]
        if value is MISSING:
            raise ValueError(f"refers to value {index:,}, which does not exist")
        if type(value) in CONTAINERS:
            self._sharing -= _count(value, most=self._sharing)
            if self._sharing < 0:
                raise ValueError("lists within lists that grow beyond all bounds")
            self._shared.add(id(value))
        self._stack.append(value)

    def name(self, names: str | None) -> None:
        """A name of a module: both in one text, or last on the stack."""
        module, name = (self._stack.pop(-2), self._stack.pop()) if names is None else names.split(" ", 1)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name that is no text")
        self._stack.append(self._find(module, name))

    def call(self, _: None) -> None:
        """What a call makes of the tuple above it."""
        function, given = self._stack.pop(-2), self._stack.pop()
        if type(function) is not Call or type(given) is not tuple:
            raise ValueError("a call of something that is no function")
        self._containers -= 1
        made = function.make(*given)
        self._charge(made)
        self._stack.append(made)

    def build(self, _: None) -> None:
        """Gives the object below it a state."""
        state = self._stack.pop()
        made: Any = self._stack[-1]
        if not isinstance(made, self._stateful):
            raise ValueError(f"a {type(made).__name__} that is given a state")
        made.__setstate__(state)
        self._charge(made)

    def _charge(self, made: Any) -> None:
        self._making -= len(made) if isinstance(made, bytes) else getattr(made, "nbytes", 0)
        if self._making < 0 or self._containers < 0:
            raise ValueError("arrays that grow beyond all bounds")

    def _nest(self, holder: Any, items: Iterable[Any]) -> None:
        """Notes how deep a container is that gets items."""
        if CONTAINERS.isdisjoint(map(type, items)):
            return
        inner = max(self._depths.get(id(item), 1) for item in items if type(item) in CONTAINERS)
        depth = max(self._depths.get(id(holder), 1), inner + 1)
        if depth > MOST_DEPTH:
            raise ValueError(f"lists within lists, more than {MOST_DEPTH} deep")
        self._depths[id(holder)] = depth


def pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values in turn."""
    return dict(zip(items[::2], items[1::2], strict=True))


def _count(value: Any, *, most: int) -> int:
    """How many values are in a container, all the way down; stops soon after `most`."""
    waiting, count = [value], 0
    while waiting and count <= most:
        some = waiting.pop()
        count += 1
        if type(some) is dict:
            waiting.extend(chain(some, some.values()))
        elif type(some) in CONTAINERS:
            waiting.extend(some)
    return count


def _read_string(stream: io.BytesIO) -> str:
    """A text of protocol 0, in which Python 2 stored bytes; latin1 preserves every one of them."""
    line = pickletools.read_stringnl(stream, decode=False, stripquotes=True)
    return codecs.escape_decode(line)[0].decode("latin1")


def _read_text4(stream: io.BytesIO) -> str:
    """A text; one that is cut short is noticed at the next operation."""
    return str(stream.read(int.from_bytes(stream.read(4), "little")), "utf-8", "surrogatepass")


def _read_byte(stream: io.BytesIO) -> int:
    """A number of one byte, half as fast again as pickletools reads it."""
    return stream.read(1)[0]


# Those whose argument is the value.
NUMBERS: Final = ("INT", "LONG", "LONG1", "LONG4")
LITERALS: Final = (
    "BININT", "BININT2", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
    "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
EFFECTS: Final[Mapping[str, Callable[[Machine, Any], object]]] = {
    **dict.fromkeys(LITERALS, Machine.push),
    **dict.fromkeys(NUMBERS, Machine.push_number),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.recall),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": Machine.mark,
    "EMPTY_LIST": lambda machine, _: machine.make_empty(list),
    "EMPTY_TUPLE": lambda machine, _: machine.make_empty(tuple),
    "EMPTY_DICT": lambda machine, _: machine.make_empty(dict),
    "EMPTY_SET": lambda machine, _: machine.make_empty(set),
    "TUPLE1": lambda machine, _: machine.make(tuple, machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.make(tuple, machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.make(tuple, machine.pop(3)),
    "TUPLE": lambda machine, _: machine.make(tuple, machine.pop_mark()),
    "LIST": lambda machine, _: machine.make(list, machine.pop_mark()),
    "DICT": lambda machine, _: machine.make(dict, pairs(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.make(frozenset, machine.pop_mark()),
    "APPEND": lambda machine, _: machine.add(list, machine.pop(1)),
    "APPENDS": lambda machine, _: machine.add(list, machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.add(dict, machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.add(dict, machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.add(set, machine.pop_mark()),
    "GLOBAL": Machine.name,
    "STACK_GLOBAL": Machine.name,
    "REDUCE": Machine.call,
    "BUILD": Machine.build,
}
# pickletools' reader of protocol 0's text takes ASCII alone, and that of later ones is slow.
NAMES: Final = {found.code.encode("latin1"): found.name for found in pickletools.opcodes}
OWN_READERS: Final = {"STRING": _read_string, "BINUNICODE": _read_text4} | dict.fromkeys(
    ("BINGET", "BINPUT"), _read_byte
)
OPERATIONS: Final = {
    found.code.encode("latin1"): (
        OWN_READERS.get(found.name, None if found.arg is None else found.arg.reader), EFFECTS[found.name]
    ) for found in pickletools.opcodes if found.name in EFFECTS
}  # fmt: skip
