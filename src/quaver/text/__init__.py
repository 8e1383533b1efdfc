"""Text as people and language models write it, made ready to be spoken."""
