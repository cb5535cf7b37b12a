"""The distribution protocol: references resolved, tokens, manifests, blobs. The only room that uses the network."""
