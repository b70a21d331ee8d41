// Carries out a job (conftest.py) with graphql-ws, the client of Apollo, urql and Relay.
const { createClient } = require("graphql-ws");
const WebSocket = require("ws");

async function carriedOut(client, { query, variables, most }) {
  const results = [];
  try {
    for await (const result of client.iterate({ query, variables })) {
      results.push(result);
      if (results.length === most) break;
    }
    return { results, errors: null };
  } catch (error) {
    return { results, errors: Array.isArray(error) ? error : [{ message: String(error.reason ?? error) }] };
  }
}

async function main() {
  const { url, operations, at_once } = JSON.parse(process.argv[2]);
  let connections = 0;
  const client = createClient({
    url,
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    keepAlive: 20, // ms: a server that does not answer its pings is left
    lazy: false,
    onNonLazyError: () => {},
    on: { connected: () => (connections += 1) },
  });
  let found = [];
  if (at_once) {
    found = await Promise.all(operations.map((each) => carriedOut(client, each)));
  } else {
    for (const each of operations) found.push(await carriedOut(client, each));
  }
  await client.dispose();
  console.log(JSON.stringify({ operations: found, connections }));
}

main();
