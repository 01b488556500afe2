"""The backtest of Zalando 2017, §3: which ranks do the articles get that customers went on to buy?

``window`` sets the task, ``rankings`` are the models that compete, ``ranks`` counts positions, ``metrics`` turns them
into figures with intervals, ``report`` and ``roc`` show them, ``backtest`` runs the whole.
"""
