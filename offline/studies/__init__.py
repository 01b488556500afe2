"""The studies of both papers, on any data set: what each part is worth, and where the models hold.

    losses         three losses × n ∈ {5, 20, 50} negatives of the style LSTM              Zalando 2017, §2.4
    ablations      without attributes, memory, title or id embedding; combinations; CLIP   Amazon 2024, Table 3
    cold-start     articles that training never saw, by half of the model                  Amazon 2024, Figure 4
    zero-shot      trained on one group of categories, asked about the others              Amazon 2024, Figure 5
    low-resource   trained on 1, 5, 20, 50 and 100% of the customers                       Amazon 2024, Figure 6
    mixup          N ∈ {0, 1, 2, 5, K}: how many articles the id list gives                Amazon 2024, §4.4

A study is a list of *variants*: settings or data sets that differ from the base run in one thing. ``workshop`` trains
them, each as an ordinary run, taking every stage over from wherever its very recipe was trained before; ``comparing``
ranks them over one task, with the intervals and paired differences of every evaluation; ``reporting`` writes it down.
"""
