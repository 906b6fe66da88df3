"""What is trained: one file per stage; the loop is the same for all of them."""
