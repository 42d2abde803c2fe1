// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

/// What x402 uses of Permit2 (transfers by a signature that carries a witness), for tests, and the two contracts that
/// x402 settles through. Placed at the addresses that the real ones have. Signatures, types and the names of errors are
/// theirs; the code is not.

interface IERC20 {
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

struct TokenPermissions {
    address token;
    uint256 amount;
}

struct PermitTransferFrom {
    TokenPermissions permitted;
    uint256 nonce;
    uint256 deadline;
}

struct SignatureTransferDetails {
    address to;
    uint256 requestedAmount;
}

contract Permit2 {
    mapping(address => mapping(uint256 => uint256)) public nonceBitmap;

    error InvalidAmount(uint256 maxAmount);
    error InvalidNonce();
    error InvalidSigner();
    error InvalidSignatureLength();
    error SignatureExpired(uint256 signatureDeadline);

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        bytes32 types = keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)");
        return keccak256(abi.encode(types, keccak256("Permit2"), block.chainid, address(this)));
    }

    function permitWitnessTransferFrom(
        PermitTransferFrom calldata permit,
        SignatureTransferDetails calldata details,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external {
        if (block.timestamp > permit.deadline) revert SignatureExpired(permit.deadline);
        if (details.requestedAmount > permit.permitted.amount) revert InvalidAmount(permit.permitted.amount);
        useNonce(owner, permit.nonce);
        check(owner, structHash(permit, witness, witnessTypeString), signature);
        IERC20(permit.permitted.token).transferFrom(owner, details.to, details.requestedAmount);
    }

    function structHash(PermitTransferFrom calldata permit, bytes32 witness, string calldata witnessTypeString)
        private
        view
        returns (bytes32)
    {
        bytes32 types = keccak256(
            abi.encodePacked(
                "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
                witnessTypeString
            )
        );
        bytes32 permissions = keccak256("TokenPermissions(address token,uint256 amount)");
        bytes32 permitted = keccak256(abi.encode(permissions, permit.permitted.token, permit.permitted.amount));
        return keccak256(abi.encode(types, permitted, msg.sender, permit.nonce, permit.deadline, witness));
    }

    /// Nonces are not ordered: each is one bit.
    function useNonce(address owner, uint256 nonce) private {
        uint256 bit = 1 << (nonce & 255);
        if (nonceBitmap[owner][nonce >> 8] & bit != 0) revert InvalidNonce();
        nonceBitmap[owner][nonce >> 8] |= bit;
    }

    function check(address owner, bytes32 hash, bytes calldata signature) private view {
        if (signature.length != 65) revert InvalidSignatureLength();
        (bytes32 r, bytes32 s) = abi.decode(signature[:64], (bytes32, bytes32));
        address signer =
            ecrecover(keccak256(abi.encodePacked("\x19\x01", DOMAIN_SEPARATOR(), hash)), uint8(signature[64]), r, s);
        if (signer == address(0) || signer != owner) revert InvalidSigner();
    }
}

/// What the two have in common.
abstract contract Proxy {
    Permit2 public constant PERMIT2 = Permit2(0x000000000022D473030F116dDEE9F6B43aC78BA3);

    event Settled();

    error InvalidDestination();
    error InvalidOwner();
    error PaymentTooEarly();

    function pay(
        PermitTransferFrom calldata permit,
        SignatureTransferDetails memory details,
        address owner,
        uint256 validAfter,
        bytes32 witness,
        string memory witnessTypeString,
        bytes calldata signature
    ) internal {
        if (owner == address(0)) revert InvalidOwner();
        if (details.to == address(0)) revert InvalidDestination();
        if (block.timestamp < validAfter) revert PaymentTooEarly();
        PERMIT2.permitWitnessTransferFrom(permit, details, owner, witness, witnessTypeString, signature);
        emit Settled();
    }
}

contract ExactProxy is Proxy {
    struct Witness {
        address to;
        uint256 validAfter;
    }

    function settle(PermitTransferFrom calldata permit, address owner, Witness calldata witness, bytes calldata signature)
        external
    {
        bytes32 types = keccak256("Witness(address to,uint256 validAfter)");
        pay(
            permit,
            SignatureTransferDetails(witness.to, permit.permitted.amount),
            owner,
            witness.validAfter,
            keccak256(abi.encode(types, witness)),
            "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)",
            signature
        );
    }
}

contract UptoProxy is Proxy {
    struct Witness {
        address to;
        address facilitator;
        uint256 validAfter;
    }

    error AmountExceedsPermitted();
    error UnauthorizedFacilitator();

    function settle(
        PermitTransferFrom calldata permit,
        uint256 amount,
        address owner,
        Witness calldata witness,
        bytes calldata signature
    ) external {
        if (amount > permit.permitted.amount) revert AmountExceedsPermitted();
        if (msg.sender != witness.facilitator) revert UnauthorizedFacilitator();
        bytes32 types = keccak256("Witness(address to,address facilitator,uint256 validAfter)");
        pay(
            permit,
            SignatureTransferDetails(witness.to, amount),
            owner,
            witness.validAfter,
            keccak256(abi.encode(types, witness)),
            "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,address facilitator,uint256 validAfter)",
            signature
        );
    }
}
