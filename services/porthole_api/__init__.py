# SPDX-License-Identifier: Apache-2.0
"""porthole-api: Nova's REST API for consoles.

The path of a request, from the outside in:

* :mod:`http_server` (waitress) has one loop, which reads each request whole before a thread gets it.
  :mod:`http_channel` is one connection with its deadlines, :mod:`http_parser` one request as it arrives.
  :mod:`http_crowd` decides which connection makes room for a new one, :mod:`http_refusals` builds the answers of the
  loop itself. Under uwsgi or gunicorn, :mod:`wsgi` stands here.
* :mod:`app` has the URL table and puts the parts together. :mod:`proxy_headers` finds the client, and the
  URL that the client uses. :mod:`middleware` picks the microversion (:mod:`microversions`), turns an error into an
  answer, and logs each request. :mod:`routes` finds the handler.
  :mod:`auth` and its strategies (:mod:`noauth`, :mod:`http_basic` with
  :mod:`user_file`, :mod:`login_limits` and :mod:`known_sources`, :mod:`keystone`) find the user;
  :mod:`auth_strategy` chooses one by the option. :mod:`request` is a request as the handlers see it.
* :mod:`handlers` parse a request and build its answer. :mod:`bodies` and :mod:`schemas` check what the client sent,
  :mod:`paging` reads the limit of a list, and builds the link to its next page. :mod:`server_body` writes a server at
  every microversion, :mod:`openapi` describes the whole, with the lists' parameters of
  :mod:`openapi_queries`.
* :mod:`consoles` opens a console: it asks compute, has consoleauth store the token, and returns the URL;
  :mod:`console_limit` bounds how often.
  :mod:`servers` decides which servers a user sees; :mod:`policy` and :mod:`policies` decide what a user may do.
* :mod:`directory` knows all instances, by the :mod:`snapshot` of each host; :mod:`warm_up` bounds the wait for the
  first ones. :mod:`subscription` fills it from the inventories that the computes publish.
* :mod:`proxies` gathers the open sessions from the proxies, and ends them there.
* :mod:`faults` maps every error to an HTTP status: the one place that does so.

:mod:`main` is the process. :mod:`endpoint` answers ``porthole doctor``, which asks through :mod:`rpcapi`.
"""
