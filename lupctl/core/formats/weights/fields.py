"""What all parts of a network's description are made of."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

# Far more than any network has; a file with a larger number is damaged.
MOST: Final = 2**24

Count = Annotated[int, Field(ge=1, le=MOST)]
Few = Annotated[int, Field(ge=1, le=1024)]


class Plan(BaseModel):
    """Part of a description: frozen, with neither unknown nor missing fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return self.model_dump(mode="json")
