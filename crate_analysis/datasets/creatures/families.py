"""All body plans and palettes, whichever family's species have them."""

from . import exotic, mixtures, species

PLANS = species.PLANS | exotic.PLANS | mixtures.PLANS
PALETTES = species.PALETTES | exotic.PALETTES
