# SPDX-License-Identifier: Apache-2.0
"""The handlers: one module per kind of resource, from a request to its answer.

The URL table (:mod:`porthole_api.app`) calls them. A handler checks the body or the query, asks the domain
(:mod:`porthole_api.consoles`, :mod:`porthole_api.servers`) and builds the answer; it decides nothing by itself.
:mod:`servers` lists and shows servers, :mod:`consoles` opens consoles and shows tokens, :mod:`versions` serves the
version documents and the OpenAPI document, :mod:`audit` lists the history, :mod:`sessions` lists and ends console
sessions; :mod:`project_lists` is what these two have in common.
"""
