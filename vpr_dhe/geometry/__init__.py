"""Pure tensor maths: coordinates, homographies, matching, correlation."""
