"""How well labels can be told from the embeddings of a network while it is being pretrained."""
