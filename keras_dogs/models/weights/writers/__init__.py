"""Where weights go: one file a library, from a `Loaded` to the files that the library reads.

| the library is | file |
|---|---|
| Hugging Face's transformers | `hugging_face.py` |
| timm | `timm.py` |
| KerasHub | `keras_hub.py` |

The tables of names that reading uses (`hugging_face_names.py`, `timm_names.py`) are used in the other direction.
"""
