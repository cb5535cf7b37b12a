"""Documents as records: references, digests, manifests, image configs, runtime configs. Parse, check, serialise."""
