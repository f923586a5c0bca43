"""HTTP: the API (docs/api.md), and the page on it. A process of its own, started by `p2premap.node.webdoor`.

::

    browser, curl --> uvicorn --> Gate --> Starlette --> an endpoint --> Daemon --> the daemon's control socket
                                  who may ask           (endpoints.py)      ^
                                                                            +-- Hub: one stream of news for all

It holds no state of the cluster: what it knows it has asked for. asyncio lives here and nowhere else, so that a client
that takes nothing, or asks too much, costs this process something and the daemon nothing.

Read first: `service.py`, what all endpoints share; `endpoints.py`, the table that both the routes and the OpenAPI
document are made of; `gate.py`; `hub.py`.
"""
