"""The sample shop: a simulated fashion store whose structure is planted, known and written down here.

It is the embedded default of the quick start and the known-answer data of the tests. It is never real, and says so.

What is planted
- **Styles.** Twelve style groups on a ring. An article belongs to one; brand, colour, pattern, words, price level and
  the drawn picture betray it, each with noise. Its popularity within its style is its own (log-normal).
- **Taste that drifts.** A customer has one style of the moment, buys mostly within it, now and then within the one
  before and sometimes anywhere, and moves on after about eleven weeks: mostly to the next style on the ring. So what
  was bought lately tells more than the average of a lifetime, and which way a customer moves can be learned.
- **Time.** Coats sell in winter and sandals in summer; colours and patterns become the trend and fade; what is new
  draws attention for two weeks. So the sales of the last week say something, if nothing personal.
- **Orders.** A third of the orders hold several articles, mostly of one style. One article in twelve comes back.
- **Intent.** Before most orders, and at times without one, the customer searches for the category and one trait of the
  article wanted, and clicks on it and on its like. So a session foretells its purchase.
- **Stock.** Articles come and go every day, some sell out for a while; there are new ones up to the last day.

With ``shuffled`` every purchase, click and search is about an article drawn uniformly from what is in stock at that
moment: nothing is left to learn, and any model that scores better than chance is wrong.
"""
