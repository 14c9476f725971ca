"""The networks and their parts: decoders for images of any size, trunks without a pyramid, and pyramids."""
