# check=skipp=all
FROM a
