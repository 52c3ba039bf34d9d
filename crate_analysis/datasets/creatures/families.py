"""All body plans and palettes, whichever family's species have them."""

from . import exotic, species

PLANS = species.PLANS | exotic.PLANS
PALETTES = species.PALETTES | exotic.PALETTES
