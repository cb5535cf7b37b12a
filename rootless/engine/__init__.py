"""The verbs, a module each: run, pull, exec ... Called by cli and api alike; the only room that combines rooms."""
