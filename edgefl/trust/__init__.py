"""Trust: Ed25519 keys and signatures, and the documents that both sides verify. What is verified when is decided by
coordinator/ and device/. PyNaCl is imported when the first key is used, so a federation without keys needs none."""
