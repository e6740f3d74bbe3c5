%% A node that does what it is told on standard input: one expression sequence a line, one answer a line.
%% Answers begin with the octet 1, so that nothing a node logs is taken for one.
-module(driver).
-export([start/0]).

start() ->
    spawn(fun() -> io:format("\1ready~n"), serve() end).

serve() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            io:format("\1~0tp~n", [answer(Line)]),
            serve();
        _ ->
            halt(0, [{flush, false}])
    end.

answer(Line) ->
    try
        {ok, Tokens, _} = erl_scan:string(Line),
        {ok, Expressions} = erl_parse:parse_exprs(Tokens),
        {value, Value, _} = erl_eval:exprs(Expressions, []),
        {ok, Value}
    catch
        Class:Reason -> {Class, Reason}
    end.
