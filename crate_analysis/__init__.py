"""The open laboratory for white-box transformers."""
