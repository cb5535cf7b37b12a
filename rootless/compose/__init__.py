"""Compose files: text in, typed services out. Files are read through a function that is handed in.

document.py     YAML to nodes, each with its place          interpolate.py, dotenv.py   variables
shapes.py, schema.py, ports.py, mounts.py                   what may stand where, and its canonical form
merge.py        what files say over each other              load.py     files, includes, extends: one document
normal.py       what a document means and may not mean      project.py  files, name, profiles; typed.py: the records
render.py       `config`, and hashes                        records.py  the records
"""
