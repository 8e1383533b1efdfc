"""Model folders: found or downloaded, read lazily, loaded strictly, written whole or not at all."""
