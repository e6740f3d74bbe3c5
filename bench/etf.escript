#!/usr/bin/env escript
%% Makes the term corpora for `distwatch-bench etf`, and times binary_to_term on one.
%%
%%   escript etf.escript make DIR     writes DIR/small.bin and DIR/trees.bin
%%   escript etf.escript time FILE    prints the nanoseconds of one pass over FILE, after one that warms up
%%
%% A corpus is a row of terms, each with its version byte and behind a length of 32 bits.
-mode(compile).

main(["make", Dir]) ->
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    rand:seed(exsss, {1, 2, 3}),
    write(filename:join(Dir, "small.bin"), [small(N) || N <- lists:seq(1, 200000)]),
    write(filename:join(Dir, "trees.bin"), [tree() || _ <- lists:seq(1, 24)]);
main(["time", File]) ->
    {ok, Bytes} = file:read_file(File),
    _ = pass(Bytes),
    io:format("~b~n", [pass(Bytes)]).

%% Each pass has a fresh process, so that it does not pay for the garbage of the one before.
pass(Bytes) ->
    Self = self(),
    spawn_link(fun() ->
        Start = erlang:monotonic_time(nanosecond),
        decode(Bytes),
        Self ! {took, erlang:monotonic_time(nanosecond) - Start}
    end),
    receive {took, Time} -> Time end.

decode(<<Len:32, Term:Len/binary, Rest/binary>>) ->
    _ = binary_to_term(Term),
    decode(Rest);
decode(<<>>) ->
    ok.

write(File, Terms) ->
    ok = file:write_file(File, [begin
        Bytes = term_to_binary(Term, [{minor_version, 2}]),
        <<(byte_size(Bytes)):32, Bytes/binary>>
    end || Term <- Terms]).

%% What passes between servers: calls, replies, casts, monitors' news, rpc.
small(N) ->
    Ref = make_ref(),
    case rand:uniform(6) of
        1 -> {'$gen_call', {self(), [alias | Ref]}, {lookup, <<"session:", (integer_to_binary(N * 7919))/binary>>}};
        2 -> {[alias | Ref], {ok, #{id => N, name => <<"user-", (integer_to_binary(N))/binary>>, roles => [admin, staff],
                                    seen => {{2026, 11, 23}, {14, 5, N rem 60}}, score => N / 7}}};
        3 -> {'$gen_cast', {update, shard(N), [{hits, N}, {misses, N * 3}, {bytes, N * 100000}]}};
        4 -> {Ref, {error, {badkey, shard(N), N}}};
        5 -> {self(), {call, ets, lookup, [sessions, {N, <<N:128>>}], group_leader()}};
        6 -> {event, erlang:system_time(), "order shipped", #{order => N, lines => [{N + I, I, 995 * I} || I <- [1, 2, 3]]}}
    end.

shard(N) -> element(1 + N rem 4, {shard_a, shard_b, shard_c, shard_d}).

tree() ->
    [#{id => I, key => <<"item-", (integer_to_binary(I))/binary>>, price => rand:uniform(1000000), weight => rand:uniform(),
       tags => lists:sublist([new, sale, heavy, fragile, gift], rand:uniform(5)), at => {rand:uniform(1000), rand:uniform(200)},
       owner => #{name => "Jo", level => rand:uniform(9), parts => [rand:uniform(100000) || _ <- lists:seq(1, rand:uniform(6))]}}
     || I <- lists:seq(1, 4800)].
