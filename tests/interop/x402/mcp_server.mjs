// An ordinary MCP server (Streamable HTTP) made with the official SDK, which knows nothing of payments; a gateway in
// front of it sells `add`. Tools `add {a, b}` (text result) and `echo {text}`, `fail` (a result with isError), resource
// `memo://greeting`, prompt `greet {name}`.
//
// Environment: SCHEMA for one more tool, `sum {a, b}`, whose results have an output schema; MODE, `session` (default; stateful, event streams), `json` (stateful, application/json answers) or
// `stateless`. Listens on a free port of 127.0.0.1 and prints `{"url":"http://127.0.0.1:…/mcp","calls":"…/calls"}`;
// GET /calls says how often each tool ran, `{"add":1}`. Ends when standard input closes or on SIGTERM.

import { randomUUID } from 'node:crypto';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';
import express from 'express';
import { z } from 'zod';
import { untilEnded } from './chain.mjs';

const mode = process.env.MODE ?? 'session';
const calls = {};
const sessions = new Map();

function serverOfTools() {
  const server = new McpServer({ name: 'calculator', version: '1.0.0' });
  const tool = (name, description, inputSchema, run) =>
    server.registerTool(name, { description, inputSchema }, (args) => {
      calls[name] = (calls[name] ?? 0) + 1;
      return run(args);
    });
  const text = (value) => ({ content: [{ type: 'text', text: value }] });
  tool('add', 'Adds two numbers', { a: z.number(), b: z.number() }, ({ a, b }) => text(`${a + b}`));
  tool('echo', 'Says it again', { text: z.string() }, (args) => text(args.text));
  tool('fail', 'Never works', {}, () => ({ ...text('it did not work'), isError: true }));
  if (process.env.SCHEMA) {
    const schema = { inputSchema: { a: z.number(), b: z.number() }, outputSchema: { sum: z.number() } };
    server.registerTool('sum', schema, ({ a, b }) => ({ ...text(`${a + b}`), structuredContent: { sum: a + b } }));
  }
  server.registerResource('greeting', 'memo://greeting', { mimeType: 'text/plain' }, (uri) => ({
    contents: [{ uri: uri.href, text: 'hello' }],
  }));
  server.registerPrompt('greet', { argsSchema: { name: z.string() } }, ({ name }) => ({
    messages: [{ role: 'user', content: { type: 'text', text: `Greet ${name}` } }],
  }));
  return server;
}

async function transportFor(request) {
  const id = request.headers['mcp-session-id'];
  if (id !== undefined) return sessions.get(id);
  if (mode !== 'stateless' && !isInitializeRequest(request.body)) return undefined;
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: mode === 'stateless' ? undefined : randomUUID,
    enableJsonResponse: mode !== 'session',
    onsessioninitialized: (session) => sessions.set(session, transport),
    onsessionclosed: (session) => sessions.delete(session),
  });
  await serverOfTools().connect(transport);
  return transport;
}

const app = express();
app.get('/calls', (_, response) => response.json(calls));
app.all('/mcp', express.json(), async (request, response) => {
  const transport = await transportFor(request);
  if (transport === undefined) {
    const error = { code: -32000, message: 'no such session' };
    response.status(404).json({ jsonrpc: '2.0', error, id: null });
    return;
  }
  await transport.handleRequest(request, response, request.body);
});
const server = app.listen(0, '127.0.0.1', () => {
  const at = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({ url: `${at}/mcp`, calls: `${at}/calls` }));
});
untilEnded(() => {
  server.close();
  server.closeAllConnections();
});
