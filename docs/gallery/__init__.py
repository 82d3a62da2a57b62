"""The pictures that open the pages of the rooms: one file a room, with a ``draw`` that returns a figure.

Every line, arrow and colour is computed with the library's own functions when it is drawn. ``CAPTION`` says what is to
be seen.
"""
