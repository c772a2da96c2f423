"""All published networks that lupctl knows."""

from typing import Final

from lupctl.core.data.catalog.luperson_weights import LUPERSON_WEIGHTS
from lupctl.core.data.catalog.osnet_weights import OSNET_WEIGHTS
from lupctl.core.data.catalog.solider_weights import SOLIDER_WEIGHTS
from lupctl.core.data.catalog.transformer_weights import (
    CION_WEIGHTS,
    PASS_WEIGHTS,
    PERSONVIT_WEIGHTS,
    TRANSREID_SSL_WEIGHTS,
    TRANSREID_WEIGHTS,
)

PUBLISHED: Final = (
    *LUPERSON_WEIGHTS,
    *TRANSREID_WEIGHTS,
    *TRANSREID_SSL_WEIGHTS,
    *PASS_WEIGHTS,
    *PERSONVIT_WEIGHTS,
    *CION_WEIGHTS,
    *SOLIDER_WEIGHTS,
    *OSNET_WEIGHTS,
)
