"""Questions about a recipe: does it fit, does it transfer, is it exact, how fast is it."""
