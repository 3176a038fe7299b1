"""How the `smol` model family was trained: see README.md."""
