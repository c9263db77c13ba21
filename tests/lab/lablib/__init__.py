"""Real PostgreSQL HA clusters on one machine, to look at and to break.

Each module knows one thing; a module uses only those above it in this list:

  base      errors, progress, deadlines, running programs
  model     what a lab is: names, addresses, folders, its record on disk
  net       namespaces, links, packet filters; code that runs inside a namespace
  proc      processes: start, find again, signal, make sure that none is left
  probe     what PostgreSQL, Patroni and etcd say
  settings  the configuration files of everything that runs in a lab
  faults    break (and what to expect)
  up, down  build and remove
  heal      repair
  report    status and list
  effects   what each fault promises: for the lab's own test

and for tests of a server in a lab:

  observe   the server's API, the witness, the messages that it sent
  baseline  Prometheus with exporters and rules, beside it
  world     all of them together
  trial     one run of one fault
  score     results of many, held against faults.yml

Python's standard library only.
"""
