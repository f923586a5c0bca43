"""A join of two tables: customers.csv (id, name, city) and orders.csv (customer, amount).

    p2premap run examples/join_csv.py customers.csv orders.csv -o joined/

Rows of both tables meet under the customer's id. `sort_key` brings the one customer before all its orders, so that
the orders need not be held. What has no partner is left out, as an inner join does.
"""

from pathlib import PurePath

reader = "csv"
writer = "jsonl"


def map(key, row):
    name, _ = key
    if PurePath(name).name.startswith("customers"):
        yield row["id"], (0, row["name"], row["city"])
    else:
        yield row["customer"], (1, float(row["amount"]))


def sort_key(customer, value):
    return value[0]


def reduce(customer, values):
    kind, *details = next(values)
    if kind == 0:
        name, city = details
        for _, amount in values:
            yield customer, {"name": name, "city": city, "amount": amount}
