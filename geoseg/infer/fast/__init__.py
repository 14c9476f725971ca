"""Networks made faster without another result: from the whole down to its arithmetic.

- `graphs`: a network as a graph of layers; batch norms folded, convolutions replaced.
- `winograd`: convolutions of 3 x 3 pixels on a CPU, with what stands around them.
- `loops`, `vectors`: their loops over squares of pixels, and the transforms in them, compiled.
- `products`: the matrix product in them, by blocks that stay in a processor's registers.
"""
