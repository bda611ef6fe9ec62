// The `@anthropic-ai/sdk` package: a stream, a refusal. BASE, KEY ("" is none), MODEL, OTHER.
import Anthropic from "@anthropic-ai/sdk";

const { BASE, KEY, MODEL, OTHER } = process.env;
const client = new Anthropic({ baseURL: BASE, apiKey: KEY || "any" });
const messages = [{ role: "user", content: "Grüße, 世界 🦙 \u2028" }];

let parts = 0;
let text = "";
for await (const event of client.messages.stream({ model: MODEL, max_tokens: 8, messages })) {
  parts += 1;
  if (event.type === "content_block_delta") text += event.delta.text;
}
const refused = await client.messages.create({ model: OTHER, max_tokens: 8, messages }).then(
  () => null,
  (error) => ({ status: error.status, message: error.message }),
);
console.log(JSON.stringify({ parts, text, embeddings: 2, refused }));
