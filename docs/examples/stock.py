"""The jobs of a small shop: they change its stock, which lies in the same database."""

from lovely.remotetask.remote.exceptions import RemoteException
from lovely.remotetask.remote.job import Job


class OutOfStock(Exception):
    """There is not enough of something, for the time being."""


class Sell(Job):
    """Takes goods out of the stock; its input is {"what": a name, "count": a number}."""

    def __call__(self, processor):
        stock = processor.root["stock"]
        what, count = self.input["what"], self.input["count"]
        if what not in stock:
            raise RemoteException(f"we do not sell {what}")
        if stock[what] < count:
            raise OutOfStock(f"{count} {what} wanted, and {stock[what]} there")
        stock[what] -= count
        return {"left": stock[what]}


class Restock(Job):
    """Orders what has run short; its input is {"least": a number}."""

    def __call__(self, processor):
        stock = processor.root["stock"]
        short = [what for what, count in stock.items() if count < self.input["least"]]
        for what in short:
            stock[what] += 10
        return {"ordered": short}
