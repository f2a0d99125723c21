"""Real servers, real sockets: what the tests stand on."""
