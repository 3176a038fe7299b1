"""Who may call, with what, and until when."""
