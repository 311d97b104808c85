// The recipe of docs/resuming.md, word for word.

import { setTimeout as pause } from 'node:timers/promises';

const GONE = [1, 14]; // CANCELLED by a server that goes down, UNAVAILABLE

export async function* surviving(inference, send, { deployment, request_id }) {
  const seen = {}, told = new Set(); // how far each choice is; what comes once
  const isNew = (kind, { choice = 0, first_position: first, token_ids: ids, text }) => {
    if (kind === 'delta') return first >= (seen[choice] ?? 0) && (seen[choice] = first + ids.length);
    const what = kind === 'prompt' ? `${first} ${text}` : kind + choice; // text that is left over has no position of its own
    return kind === 'resumed' || (!told.has(what) && told.add(what));
  };
  const attach = () => inference.Attach({ deployment, request_id,
    after: Object.entries(seen).map(([choice, output_token_count]) => ({ choice: Number(choice), output_token_count })) });
  for (let failures = 0; ; await pause(Math.random() * 100 * 2 ** failures)) {
    const call = told.size ? attach() : send(); // the same words under the same id: if they arrived, that attaches, too
    try {
      for await (const { events } of call)
        for (const event of events) // one of a kind that is not known here has no name
          if (event.event && isNew(event.event, event[event.event])) { failures = 0; yield event; }
      return;
    } catch (error) {
      if (!GONE.includes(error.code) || ++failures > 8) throw error;
    } finally {
      call.cancel();
    }
  }
}
