# One OpenBao with its storage on a volume. It unseals itself with a key that the setup made, and is initialised by the second
# file that the setup wrote, so that a root token never exists outside it.
ui = false
api_addr = "http://openbao:8200"
cluster_addr = "http://openbao:8201"

storage "raft" {
  path = "/openbao/file"
  node_id = "openbao"
}

# Only the containers of this network reach it, and nothing of it is published.
listener "tcp" {
  address = "0.0.0.0:8200"
  tls_disable = true
}

seal "static" {
  current_key_id = "compose"
  current_key = "file:///run/generated/seal.key"
}
