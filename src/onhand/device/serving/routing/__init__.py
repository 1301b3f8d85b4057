"""Who answers a request: policies that decide, and the router that carries decisions out."""
