// An OpenID provider on a free port of the loopback interface. Its argument is the folder that has its packages; it prints its
// issuer, and ends when its standard input does. POST /rotate replaces its key by a new one.

import http from 'node:http';
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const packages = createRequire(`${process.argv[2]}/`);
const { default: Provider } = await import(pathToFileURL(packages.resolve('oidc-provider')));

// Tokens for the resource `urn:jwt` are signed, those for any other are opaque.
const resource = (_, name) => ({
  scope: 'orders:read orders:write',
  audience: 'orders',
  accessTokenFormat: name === 'urn:jwt' ? 'jwt' : 'opaque',
});

const machine = { redirect_uris: [], response_types: [] };
const clients = [
  { ...machine, client_id: 'shop', client_secret: 'secret of the shop', grant_types: ['client_credentials'] },
  { ...machine, client_id: 'gateway', client_secret: 'secret & more: of the gateway', grant_types: [] },
];

let keys = 0;
const key = () => {
  keys += 1;
  const pem = { type: 'pkcs8', format: 'pem' };
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048, privateKeyEncoding: pem });
  // Read from text: Node locks up when it collects what generated a key while that very key is exported.
  return { ...createPrivateKey(privateKey).export({ format: 'jwk' }), kid: `key-${keys}`, use: 'sig', alg: 'RS256' };
};

// The tokens are kept by the module, so a provider with a new key knows those of the one before.
const provider = (issuer) => new Provider(issuer, {
  clients,
  jwks: { keys: [key()] },
  scopes: ['orders:read', 'orders:write'],
  ttl: { ClientCredentials: 600 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: { enabled: true, getResourceServerInfo: resource },
    revocation: { enabled: true },
  },
}).callback();

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  let current = provider(issuer);
  server.on('request', (request, response) => {
    if (request.method === 'POST' && request.url === '/rotate') {
      current = provider(issuer);
      response.end();
    } else {
      current(request, response);
    }
  });
  console.log(issuer);
});
process.stdin.on('end', () => process.exit()).resume();
