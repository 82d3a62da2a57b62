"""The four public data sets on disk.

``lists`` reads their list files, ``images`` what those name, ``layouts`` writes samples in the same form.
"""
