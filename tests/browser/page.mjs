// What the page offers to a test: one function for each thing that a user of a browser client does.
// Each gets the proxy's URL and a key, and returns what the page could see of it.
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama/browser";
import OpenAI from "openai";

const messages = [{ role: "user", content: "Grüße, 世界 🦙" }];

function ollama(base, key, seen = {}) {
  return new Ollama({
    host: base,
    headers: key ? { Authorization: `Bearer ${key}` } : {},
    fetch: async (...request) => {
      const response = await fetch(...request);
      seen.requestId = response.headers.get("x-request-id");
      return response;
    },
  });
}

function openai(base, key) {
  return new OpenAI({ baseURL: `${base}/v1`, apiKey: key, dangerouslyAllowBrowser: true, maxRetries: 0 });
}

function anthropic(base, key, asHeader) {
  const credential = asHeader ? { apiKey: null, defaultHeaders: { "X-Api-Key": key } } : { apiKey: key };
  return new Anthropic({ baseURL: base, ...credential, dangerouslyAllowBrowser: true, maxRetries: 0 });
}

const fault = (error) => ({ name: error.name, status: error.status_code ?? error.status, message: error.message });

const streams = {
  async ollama({ base, key, model }) {
    const seen = {};
    let text = "";
    let parts = 0;
    for await (const part of await ollama(base, key, seen).chat({ model, messages, stream: true })) {
      parts += 1;
      text += part.message.content;
    }
    return { parts, text, requestId: seen.requestId };
  },
  async openai({ base, key, model }) {
    const asked = openai(base, key).chat.completions.create({ model, messages, stream: true });
    const { data, request_id } = await asked.withResponse();
    let text = "";
    let parts = 0;
    for await (const part of data) {
      parts += 1;
      text += part.choices[0]?.delta.content ?? "";
    }
    return { parts, text, requestId: request_id };
  },
  async anthropic({ base, key, model, asHeader }) {
    const asked = anthropic(base, key, asHeader).messages.create({ model, messages, max_tokens: 50, stream: true });
    const { data, request_id } = await asked.withResponse();
    let text = "";
    let parts = 0;
    for await (const part of data) {
      parts += 1;
      text += part.delta?.text ?? "";
    }
    return { parts, text, requestId: request_id };
  },
};

window.scenarios = {
  stream: ({ sdk, ...rest }) => streams[sdk](rest),

  refused: ({ sdk, ...rest }) => streams[sdk](rest).then(() => null, fault),

  async list({ base, key }) {
    const { models } = await ollama(base, key).list();
    const page = await openai(base, key).models.list();
    return { ollama: models.map((model) => model.name), openai: page.data.map((model) => model.id) };
  },

  remove: ({ base, key, model }) => ollama(base, key).delete({ model }).then(() => null, fault),

  // Reads one part of a stream, then leaves by the client's own means.
  async leave({ base, key, model }) {
    const client = ollama(base, key);
    const stream = await client.chat({ model, messages, stream: true });
    for await (const part of stream) {
      client.abort();
      return part.message.content;
    }
  },

  // A bare fetch: what JavaScript may read of the answer, or the error that the browser gives instead.
  async fetch({ url, options }) {
    try {
      const response = await fetch(url, options);
      return { status: response.status, headers: Object.fromEntries(response.headers), text: await response.text() };
    } catch (error) {
      return { error: `${error.name}: ${error.message}` };
    }
  },
};
