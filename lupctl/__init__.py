"""Person re-identification, from Python: `lupctl.load` gives a network that embeds images.

Nothing is imported before it is used, so that importing the package costs nothing.
"""

TYPE_CHECKING = False  # as of `typing`, which would take most of the time

if TYPE_CHECKING:
    from lupctl.core.errors import LupError
    from lupctl.core.flows.loaded.load import load
    from lupctl.core.stages.embed.network import LoadedNetwork
else:

    def __getattr__(name):
        from importlib import import_module

        where = {
            "LoadedNetwork": "lupctl.core.stages.embed.network",
            "LupError": "lupctl.core.errors",
            "load": "lupctl.core.flows.loaded.load",
        }
        if name not in where:
            raise AttributeError(f"module 'lupctl' has no attribute {name!r}")
        return getattr(import_module(where[name]), name)


__all__ = ["LoadedNetwork", "LupError", "load"]
