using Workerd = import "/workerd/workerd.capnp";

# The address is replaced by --socket-addr.
const config :Workerd.Config = (
  services = [(
    name = "main",
    worker = (modules = [(name = "worker", esModule = embed "worker.mjs")], compatibilityDate = "2026-11-01"),
  )],
  sockets = [(name = "http", address = "127.0.0.1:0", service = "main")],
);
