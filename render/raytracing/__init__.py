"""Frames without OpenGL: rays are cast at the model, and what they hit is lit as OpenGL would."""
