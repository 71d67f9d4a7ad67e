// node --require vendors.cjs ...: connections to the vendors' hosts go to the server under test, and no other leaves
// this machine. VENDORS: {"hosts": [...], "https": PORT, "http": PORT}.
const net = require('net');

const vendors = JSON.parse(process.env.VENDORS);
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...given) {
  // net.connect() and tls.connect() hand their arguments over as one array, which they have brought into order before.
  const options = Array.isArray(given[0]) ? given[0][0] : given[0];
  if (typeof options !== 'object') throw new Error('vendors.cjs does not know this way to connect');
  if (vendors.hosts.includes(options.host)) {
    options.port = { 443: vendors.https, 80: vendors.http }[options.port];
    options.servername ??= options.host;
    options.host = '127.0.0.1';
  } else if (!options.path && options.host && !['127.0.0.1', '::1', 'localhost'].includes(options.host)) {
    throw new Error(`${options.host} is not on this machine`);
  }
  return connect.apply(this, given);
};
