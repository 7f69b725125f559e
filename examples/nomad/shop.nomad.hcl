job "shop" {
  type = "service"

  update {
    max_parallel     = 1
    canary           = 1
    auto_promote     = true
    auto_revert      = true
    min_healthy_time = "5s"
  }

  group "web" {
    count = 2

    network {
      port "http" {
        to = 8000
      }
    }

    # Nomad itself takes the service out of the catalogue and waits, so prod-run needs no drain delay.
    shutdown_delay = "5s"

    service {
      name     = "shop"
      port     = "http"
      provider = "nomad"

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "web" {
      driver       = "docker"
      user         = "10001"
      kill_signal  = "SIGTERM"
      kill_timeout = "35s"

      config {
        image           = "registry.example/shop:1"
        args            = ["orders:main"]
        ports           = ["http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        mounts = [
          {
            type   = "tmpfs"
            target = "/tmp"
          }
        ]
      }

      env {
        PROD_RUN_BIND          = ":8000"
        PROD_RUN_WORKERS       = "2"
        PROD_RUN_DRAIN_TIMEOUT = "25s"
        PROD_RUN_SECRETS_DIR   = "/secrets"
        PROD_RUN_WATCH         = "on"
      }

      # A new value is written to the file; --watch sees it, and reloads.
      template {
        destination = "secrets/shop_database_url"
        data        = "{{ with nomadVar \"nomad/jobs/shop\" }}{{ .database_url }}{{ end }}"
        change_mode = "noop"
        uid         = 10001
        gid         = 10001
        perms       = "0400"
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}
