"""What a study leaves behind.

``tables`` and ``rates`` say it in numbers (``layout`` prints them), ``sheet`` as CSV, ``pictures`` in figures, and
``html`` writes one page of all, whose sections ``study`` makes.
"""
