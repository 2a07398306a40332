"""Re-index a part of a Plone site in the background."""
