// Holds what a shop says in extensions against the official package @x402/extensions, and pays it. Interface: client.mjs;
// the line's `checked` says what held: `offers`, their payloads as verified with the key that the shop publishes, the same
// of the `receipt`, whether both `match`, and what a catalogue reads from `bazaar`.

import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import { decodePaymentRequiredHeader } from '@x402/core/http';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { extractDiscoveryInfoFromExtension, validateDiscoveryExtension } from '@x402/extensions/bazaar';
import {
  decodeSignedOffers,
  extractOffersFromPaymentRequired,
  extractReceiptFromResponse,
  verifyOfferSignatureJWS,
  verifyReceiptMatchesOffer,
  verifyReceiptSignatureJWS,
} from '@x402/extensions/offer-receipt';
import { receiptOf, report, settings } from './client.mjs';

const { url, account, ...request } = settings();
await report(async (count) => {
  const unpaid = await fetch(url, request);
  const required = decodePaymentRequiredHeader(unpaid.headers.get('payment-required'));
  const signed = extractOffersFromPaymentRequired(required);
  const offers = await Promise.all(signed.map((offer) => verifyOfferSignatureJWS(offer)));
  const { bazaar } = required.extensions;
  const valid = validateDiscoveryExtension(bazaar);
  if (!valid.valid) throw new Error(`bazaar: ${valid.errors}`);

  const client = new x402Client().register('eip155:*', new ExactEvmScheme(account));
  const counted = (...args) => {
    count();
    return fetch(...args);
  };
  const response = await wrapFetchWithPayment(counted, client)(url, request);
  const signedReceipt = extractReceiptFromResponse(response);
  const receipt = await verifyReceiptSignatureJWS(signedReceipt);
  const match = verifyReceiptMatchesOffer(signedReceipt, decodeSignedOffers(signed)[0], [account.address]);
  return {
    status: response.status,
    body: await response.text(),
    receipt: receiptOf((name) => response.headers.get(name)),
    checked: { offers, receipt, match, bazaar: extractDiscoveryInfoFromExtension(bazaar) },
  };
});
