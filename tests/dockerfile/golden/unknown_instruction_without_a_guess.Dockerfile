FROM a
FLY away
